"""What `engine.api` returns: results whose methods give Arrow tables; API.md has the columns."""
