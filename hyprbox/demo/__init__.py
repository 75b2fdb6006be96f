"""A believable fleet that does not exist, for screenshots and for looking around: `manage.py seed_demo`.

Its past cannot be made through the verbs, which act now; so these rows are written as they would be there afterwards.
"""
