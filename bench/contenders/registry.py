"""All contenders, by name, in the order in which they take their turns."""

from bench.contenders.celery import CeleryTask, KeptConnections
from bench.contenders.contender import Contender
from bench.contenders.faststream import FastStream
from bench.contenders.lesson import Lesson, TwoProcesses
from bench.contenders.platform import Platform

CONTENDERS: dict[str, Contender] = {
    each.name: each
    for each in (
        Platform(),
        CeleryTask(),
        KeptConnections(),
        FastStream(),
        Lesson(),
        TwoProcesses(),
    )
}
