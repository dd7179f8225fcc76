from segue import Actor, Done, state


class Powers(Actor[None]):
    def begin(self) -> int:
        return 20

    @state
    def add(self, last: int) -> Done[None]:  # sync: runs on a thread
        print(sum(x**10 for x in range(1, last + 1)))
        return Done()
