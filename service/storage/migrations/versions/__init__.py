"""The revisions, each a file that Alembic finds by its place; what has been released is never changed."""
