from django.urls import path

from jobs import agent_api, api, drift_api, drift_views, views

app_name = "jobs"
urlpatterns = [
    path("jobs/", views.job_list, name="list"),
    path("jobs/stop/", views.stop, name="stop"),
    path("jobs/resume/", views.resume, name="resume"),
    path("jobs/batches/<uuid:batch_id>/", views.batch, name="batch"),
    path("jobs/batches/<uuid:batch_id>/cancel/", views.batch_cancel, name="batch_cancel"),
    path("jobs/batches/<uuid:batch_id>/retry/", views.batch_retry, name="batch_retry"),
    path("jobs/<uuid:job_id>/", views.detail, name="detail"),
    path("jobs/<uuid:job_id>/cancel/", views.cancel, name="cancel"),
    path("jobs/<uuid:job_id>/retry/", views.retry, name="retry"),
    path("jobs/new/<slug:name>/targets/", views.targets, name="targets"),
    path("jobs/new/<slug:name>/confirm/", views.confirm, name="confirm"),
    path("jobs/new/<slug:name>/", views.run, name="run"),
    path("drift/", drift_views.overview, name="drift"),
    path("drift/presets/<slug:name>/", drift_views.of_preset, name="drift_of"),
    path("drift/presets/<slug:name>/line/", drift_views.line, name="drift_line"),
    path("drift/<uuid:pin_id>/check/", drift_views.check, name="drift_check"),
    path("drift/<uuid:pin_id>/resume/", drift_views.resume, name="drift_resume"),
    path("drift/<uuid:pin_id>/remove/", drift_views.remove, name="drift_remove"),
]
api_urlpatterns = [
    path("jobs", api.JobList.as_view()),
    path("jobs/batches", api.BatchList.as_view()),
    path("jobs/batches/<uuid:batch_id>", api.BatchDetail.as_view()),
    path("jobs/batches/<uuid:batch_id>/cancel", api.BatchCancel.as_view()),
    path("jobs/batches/<uuid:batch_id>/retry", api.BatchRetry.as_view()),
    path("jobs/stop", api.StopSwitch.as_view()),
    path("jobs/<uuid:job_id>", api.JobDetail.as_view()),
    path("jobs/<uuid:job_id>/cancel", api.JobCancel.as_view()),
    path("jobs/<uuid:job_id>/retry", api.JobRetry.as_view()),
    path("jobs/<uuid:job_id>/output", api.JobOutput.as_view()),
    path("jobs/<uuid:job_id>/start", agent_api.Start.as_view()),
    path("jobs/<uuid:job_id>/complete", agent_api.Complete.as_view()),
    path("drift", drift_api.DriftSummary.as_view()),
    path("drift/pins", drift_api.PinList.as_view()),
    path("drift/pins/<uuid:pin_id>", drift_api.PinDetail.as_view()),
    path("drift/pins/<uuid:pin_id>/check", drift_api.PinCheck.as_view()),
    path("drift/pins/<uuid:pin_id>/resume", drift_api.PinResume.as_view()),
    path("agent/keys", agent_api.Keys.as_view()),
]
