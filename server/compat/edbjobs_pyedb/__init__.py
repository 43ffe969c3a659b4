"""The documented job manager for programs: its classes, served by a service inside the program itself."""
