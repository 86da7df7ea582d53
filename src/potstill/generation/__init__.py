"""What models write when they are asked, and which of it is learned from."""
