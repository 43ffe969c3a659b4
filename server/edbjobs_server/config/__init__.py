"""Settings of the service, and the policy of its site."""
