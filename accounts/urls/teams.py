from django.urls import path

from accounts import views

urlpatterns = [
    path("", views.teams, name="teams"),
    path("<slug:slug>/", views.team, name="team"),
    path("<slug:slug>/members/<int:user_id>/role/", views.change_role, name="change_role"),
    path("<slug:slug>/members/<int:user_id>/remove/", views.remove_member, name="remove_member"),
]
