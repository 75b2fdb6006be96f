"""The OpenAPI document at /api/schema and the page that shows it."""
