"""A trace as people read it: rows of a tree, a conversation, plain text. Pure, and shared by the command line and the web pages.

It knows no terminal and no HTML. It reads spans and decisions only, so it works for any store.
"""
