"""The admin of users and of their roles, in the look of the other pages."""

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from booking_platform.operations.records import AnyModelAdmin

admin.site.unregister((User, Group))


@admin.register(User)
class Users(UserAdmin, AnyModelAdmin):  # type: ignore[type-arg]  # at run time it takes none
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    # The two-column widget of the admin names its fields in a way that screen readers can't read.
    filter_horizontal = ()
    list_display = ("username", "first_name", "last_name", "is_active", "is_superuser")


@admin.register(Group)
class Roles(GroupAdmin, AnyModelAdmin):
    filter_horizontal = ()
