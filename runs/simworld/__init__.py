"""The simulated world: a Provider whose truth is known (measurement.md §9).

One process per Run, apart from the agents: `python -m runs.simworld --config FILE`.
It imports nothing of Django. The site validates a Plan's `world` with
`runs.simworld.parameters.World` and writes the file of `runs.simworld.config`.
"""
