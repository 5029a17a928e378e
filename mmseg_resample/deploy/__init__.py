"""Other runtimes: export, and audits of graphs that came from elsewhere."""
