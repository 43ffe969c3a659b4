"""Small tools without knowledge of jobs, which every other part may use."""
