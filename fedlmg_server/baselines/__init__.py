"""What one would do without FedLMG, measured on the same uploads, data and seeds."""
