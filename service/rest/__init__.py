"""The REST side of the service: routes by subject, their table, what a route is, problems, views, the description."""
