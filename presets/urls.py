from django.urls import path

from presets import api, editor, views

app_name = "presets"
urlpatterns = [
    path("presets/", views.catalogue, name="list"),
    path("presets/pick/", views.pick, name="pick"),
    path("presets/new/", editor.new, name="new"),
    path("presets/import/", editor.import_file, name="import"),
    path("presets/review/", editor.live_review, name="review"),
    path("presets/<slug:name>/", views.preview, name="preview"),
    path("presets/<slug:name>/edit/", editor.edit, name="edit"),
    path("presets/<slug:name>/revisions/", editor.revisions, name="revisions"),
    path("presets/<slug:name>/export/", editor.export, name="export"),
    path("presets/<slug:name>/archive/", editor.archive, name="archive"),
    path("presets/<slug:name>/restore/", editor.restore, name="restore"),
]
api_urlpatterns = [
    path("presets", api.PresetList.as_view()),
    path("presets/<str:name>", api.PresetDetail.as_view()),
    path("presets/<str:name>/render", api.PresetRender.as_view()),
    path("presets/<str:name>/export", api.PresetExport.as_view()),
    path("presets/<str:name>/revisions", api.PresetRevisions.as_view()),
    path("presets/<str:name>/revisions/<int:number>", api.PresetRevisionDetail.as_view()),
    path("presets/<str:name>/diff", api.PresetDiff.as_view()),
    path("presets/<str:name>/duplicate", api.PresetDuplicate.as_view()),
    path("presets/<str:name>/archive", api.PresetArchive.as_view()),
    path("presets/<str:name>/restore", api.PresetRestore.as_view()),
]
