from django.urls import path

from audit import api, views

app_name = "audit"
urlpatterns = [path("audit/", views.event_list, name="list")]
api_urlpatterns = [path("audit", api.EventList.as_view())]
