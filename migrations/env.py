"""How Alembic runs the migrations: on the connection that LiteFlow hands over, or on the URL of alembic.ini."""

from alembic import context
from sqlalchemy import Connection

VERSION_TABLE = "liteflow_schema"


def run(connection: Connection) -> None:
    """Run them in the transaction of *connection*, so that a failed one leaves nothing."""
    context.configure(connection=connection, version_table=VERSION_TABLE, transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()


handed_over = context.config.attributes.get("connection")
if handed_over is not None:
    run(handed_over)
else:
    from liteflow.store.database import Database  # its transactions hold DDL too, which SQLAlchemy's own do not on SQLite

    database = Database(context.config.get_main_option("sqlalchemy.url"))
    database.connect()
    with database.engine.begin() as own:
        run(own)
    database.dispose()
