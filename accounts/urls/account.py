from django.urls import path

from accounts.views import account, sessions

urlpatterns = [
    path("", account.account, name="account"),
    path("sessions/<int:session_id>/end/", sessions.end_session, name="end_session"),
    path("sessions/end-others/", sessions.end_other_sessions, name="end_other_sessions"),
    path("tokens/new/", account.new_token, name="new_token"),
    path("tokens/<int:token_id>/revoke/", account.revoke_token, name="revoke_token"),
]
