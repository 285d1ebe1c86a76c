"""The hot path: async, frozen values, no Django.

endpoints -> authenticate | route | admit | attempt | stream | settle -> journal
"""
