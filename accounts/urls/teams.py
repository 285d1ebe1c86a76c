from django.urls import path

from accounts.views import invitations, limits, teams, webhooks

urlpatterns = [
    path("", teams.teams, name="teams"),
    path("<slug:slug>/", teams.team, name="team"),
    path("<slug:slug>/rename/", teams.rename_team, name="rename_team"),
    path("<slug:slug>/archive/", teams.archive_team, name="archive_team"),
    path("<slug:slug>/restore/", teams.restore_team, name="restore_team"),
    path("<slug:slug>/leave/", teams.leave_team, name="leave_team"),
    path("<slug:slug>/hand-over/", teams.hand_over, name="hand_over"),
    path("<slug:slug>/members/<int:user_id>/role/", teams.change_role, name="change_role"),
    path("<slug:slug>/members/<int:user_id>/remove/", teams.remove_member, name="remove_member"),
    path("<slug:slug>/invite/", invitations.invite, name="invite"),
    path(
        "<slug:slug>/invitations/<int:invitation_id>/withdraw/",
        invitations.withdraw_invitation,
        name="withdraw_invitation",
    ),
    path("<slug:slug>/rate-limit/", limits.team_rate_limit, name="team_rate_limit"),
    path("<slug:slug>/quota/", limits.team_quota, name="team_quota"),
    path("<slug:slug>/webhooks/", webhooks.add_webhook, name="add_webhook"),
    path("<slug:slug>/webhooks/<int:webhook_id>/switch/", webhooks.switch_webhook, name="switch_webhook"),
    path("<slug:slug>/webhooks/<int:webhook_id>/remove/", webhooks.remove_webhook, name="remove_webhook"),
]
