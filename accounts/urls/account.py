from django.urls import path

from accounts.views import account

urlpatterns = [
    path("", account.account, name="account"),
    path("tokens/new/", account.new_token, name="new_token"),
    path("tokens/<int:token_id>/revoke/", account.revoke_token, name="revoke_token"),
]
