"""The management API of teams and their people, API keys, access tokens, webhooks and the audit.

Limits and quotas are in `gateway.limits_api`, because what is used of them is known there.
"""
