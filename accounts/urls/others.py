"""Pages that stand alone at the root of the site."""

from django.urls import path

from accounts.views import account, audit, invitations, limits

urlpatterns = [
    path("audit/", audit.audit, name="audit"),
    path("invitations/<str:token>/", invitations.invitation, name="invitation"),
    path("rate-limits/<int:limit_id>/remove/", limits.remove_rate_limit, name="remove_rate_limit"),
    path("quotas/<int:quota_id>/remove/", limits.remove_quota, name="remove_quota"),
    path("accounts/email/", account.not_here),  # an address is changed by an administrator
    path("accounts/2fa/", account.on_account_page, {"section": "sign-in"}),
    path("accounts/2fa/webauthn/", account.on_account_page, {"section": "passkeys"}),
    path("accounts/sessions/", account.on_account_page, {"section": "sessions"}),
]
