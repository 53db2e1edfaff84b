"""The canonical network: a graph of a small vocabulary of layers, and how modules become one."""
