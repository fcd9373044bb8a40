"""Recordings of several channels over time, as files hold them: shared by imu and timeseries."""
