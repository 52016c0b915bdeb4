"""What is promised to users, shown with real processes."""
