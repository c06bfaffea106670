"""Stand-ins: a vendor's wire format before a simulated world (measurement.md §9).

A world's process (`runs.simworld`) given a vendor speaks that vendor's API instead of
its own socket; admission, lives, deaths and the truth are the same. How faithful each
is, and by what it was seen, is in docs/providers.md.
"""
