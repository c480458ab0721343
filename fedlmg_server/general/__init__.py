"""General images and general models: what the server knows without any client."""
