"""The operators' admin: unfold's look, the operator home as its first page."""

from django.contrib.admin.apps import AdminConfig
from unfold.sites import UnfoldAdminSite


class RedriveAdminSite(UnfoldAdminSite):
    site_title = site_header = "Redrive"
    index_title = "Operations"
    enable_nav_sidebar = True


class RedriveAdminConfig(AdminConfig):
    default_site = "config.admin_site.RedriveAdminSite"
