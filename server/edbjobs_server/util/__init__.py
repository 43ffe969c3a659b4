"""Small parts that know nothing of jobs: waiting, repeating, and work that may hang."""
