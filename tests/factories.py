import factory

from catalog.models import Tour


class TourFactory(factory.django.DjangoModelFactory[Tour]):
    class Meta:
        model = Tour

    name = factory.Sequence(lambda number: f"Tour {number}")
    price = "10.00"
    capacity = 20
