"""What the nodes and the library need to understand each other; nothing here is a node."""
