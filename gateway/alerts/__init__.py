"""Alerts: rules that tell people when a figure is beyond its threshold.

    measure | decide | write down and tell

`measuring` asks the books, `rules` decides, `evaluating` writes the decision with its messages.
"""
