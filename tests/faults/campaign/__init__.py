"""A campaign of faults against the real service, and a checker that decides by what others saw.

The witnesses stand outside the service: each solver run appends what it saw to a file of its own, the clients
write down what they were answered, a watcher keeps every event. ``checker.check`` is a pure function of these.

``cd tests && python -m faults.campaign --faults 200`` runs a long one; pytest runs a small sample.
"""
