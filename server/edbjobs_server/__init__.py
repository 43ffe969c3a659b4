"""The edbjobs service: queues, runs and watches Ansys HFSS solves."""
