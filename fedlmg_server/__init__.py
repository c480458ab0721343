"""The server: collects uploads, generates images, distils a model, reports."""
