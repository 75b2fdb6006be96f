from django.urls import path

from accounts import api, views

urlpatterns = [
    path("login/", views.login, name="login"),
    path("logout/", views.logout, name="logout"),
    path("theme/", views.theme, name="theme"),
]
api_urlpatterns = [
    path("auth/login", api.Login.as_view()),
    path("auth/register", api.Register.as_view()),
    path("auth/refresh", api.Refresh.as_view()),
    path("auth/logout", api.Logout.as_view()),
    path("auth/me", api.Me.as_view()),
    path("auth/password", api.Password.as_view()),
]
