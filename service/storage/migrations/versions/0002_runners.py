"""Which runner has a job, how its attempts were lost, and what holds for all the records."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_INTEGER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Bring the tables from the revision before to this one; there is no way back."""
    op.add_column("jobs", sa.Column("deaths", _INTEGER, nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("journaled", _INTEGER, nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("runner", sa.String))
    op.create_table(
        "facts",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("value", sa.String, nullable=False),
    )
