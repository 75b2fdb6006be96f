from django.urls import path

from presets import api, views

app_name = "presets"
urlpatterns = [
    path("presets/", views.catalogue, name="list"),
    path("presets/pick/", views.pick, name="pick"),
    path("presets/<slug:name>/", views.preview, name="preview"),
]
api_urlpatterns = [
    path("presets", api.PresetList.as_view()),
    path("presets/<str:name>", api.PresetDetail.as_view()),
    path("presets/<str:name>/render", api.PresetRender.as_view()),
]
