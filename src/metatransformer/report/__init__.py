"""What a score says: controls, verdict, figures, page."""
