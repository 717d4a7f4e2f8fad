"""What is switched in the user's layers while they are called, and put back: messages, weights, caches.

No question may enter: why a message is scaled is not known here.
"""
