"""What photographs, X-rays and infrared pictures share."""
