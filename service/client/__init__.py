"""The Python client of the service: REST from another process, without any part of the server."""
