"""What the staff see that belongs to no single app: the toolkit of the admins, and shared pages."""
