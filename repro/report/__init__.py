"""What people and programs read: the only importer of rich."""
