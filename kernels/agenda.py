"""The agenda: which source must be judged again, and when. A binary heap that knows its members.

A source stands in it at most once, so it never holds more than there are sources. The order is
total, (due time, source), so it depends on nothing else.

State    agenda (sources,) int32; SOURCE.due_ms, SOURCE.place; CLOCK.n_agenda
"""

from kernels.jit import step


@step
def before(a, b, sources):
    """Tell whether source ``a`` is due before source ``b``."""
    if sources[a].due_ms != sources[b].due_ms:
        return sources[a].due_ms < sources[b].due_ms
    return a < b


@step
def settle_agenda(place, n, agenda, sources):
    """Move the source at ``place`` to where its due time belongs."""
    source = agenda[place]
    while place > 0 and before(source, agenda[(place - 1) // 2], sources):
        parent = (place - 1) // 2
        agenda[place] = agenda[parent]
        sources[agenda[place]].place = place
        place = parent
    while True:
        child = 2 * place + 1
        if child >= n:
            break
        if child + 1 < n and before(agenda[child + 1], agenda[child], sources):
            child += 1
        if not before(agenda[child], source, sources):
            break
        agenda[place] = agenda[child]
        sources[agenda[place]].place = place
        place = child
    agenda[place] = source
    sources[source].place = place


@step
def schedule(source, due_ms, clock, agenda, sources):
    """Put a source on the agenda, or move it there."""
    s = sources[source]
    s.due_ms = due_ms
    if s.place < 0:
        s.place = clock.n_agenda
        agenda[s.place] = source
        clock.n_agenda += 1
    settle_agenda(s.place, clock.n_agenda, agenda, sources)


@step
def unschedule(source, clock, agenda, sources):
    """Take a source off the agenda, if it is on it."""
    place = sources[source].place
    if place < 0:
        return
    sources[source].place = -1
    clock.n_agenda -= 1
    last = agenda[clock.n_agenda]
    if last != source:
        agenda[place] = last
        sources[last].place = place
        settle_agenda(place, clock.n_agenda, agenda, sources)
