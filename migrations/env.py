"""How Alembic runs the migrations: on the connection LiteFlow hands over, or on the URL of alembic.ini."""

from alembic import context
from sqlalchemy import create_engine

VERSION_TABLE = "liteflow_schema"


def run(connection):
    """Run them in the transaction of *connection*, so that a failed one leaves nothing."""
    context.configure(connection=connection, version_table=VERSION_TABLE, transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()


handed_over = context.config.attributes.get("connection")
if handed_over is not None:
    run(handed_over)
else:
    with create_engine(context.config.get_main_option("sqlalchemy.url")).begin() as own:
        run(own)
