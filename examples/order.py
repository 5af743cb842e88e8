"""An order: retries, a payment that is made once, an approval that may take days, and a branch.

`ctx.step` records what the payment returned at once, so no later attempt pays again. `wait_for` starts a task when somebody has
set its keys: the run waits, costs nothing, and says for what. Kill this script anywhere: started again, it goes on.
"""

from liteflow import Context, Flow, NextTask, RetryPolicy, TaskOutput

flow = Flow(name="order")
charged = {}  # what the payment service knows: by idempotency key, so that a call that is repeated charges once


def charge(amount, idempotency_key):
    print(f"  charging {amount} €")
    return charged.setdefault(idempotency_key, {"receipt": f"R-{amount}", "amount": amount})


@flow.task(retry=RetryPolicy(max_attempts=5, initial_interval=0.01))
def reserve(ctx):
    if ctx.attempt <= 2:
        raise ConnectionError("the warehouse does not answer")
    print(f"  reserved at attempt {ctx.attempt}")
    return TaskOutput(ctx.get("item"), [NextTask("pay")])


@flow.task(retry=RetryPolicy(max_attempts=3, initial_interval=0.01))
def pay(ctx):
    paid = ctx.step("charge", charge, ctx.get("price"), ctx.idempotency_key)
    if ctx.attempt == 1:
        raise TimeoutError("the mail server does not answer")  # after the payment: the next attempt finds it paid
    return TaskOutput(paid["receipt"], [NextTask("decide", wait_for=["approval"])])


@flow.task()
def decide(ctx):
    return TaskOutput(ctx.get("approval"), [NextTask("ship" if ctx.get("approval") == "yes" else "refund")])


@flow.task()
def ship(ctx):
    return f"{ctx.get('item')} shipped, paid with {ctx.get('pay')}"


@flow.task()
def refund(ctx):
    return f"{ctx.get('pay')} refunded"


def order(number, item, price, answer):
    print(f"order {number}: {item}")
    run = flow.start("reserve", {"item": item, "price": price}, run_id=f"order-{number}", context=Context(f"order-{number}"))
    run.context.get("pay")  # waits for the payment
    while run.status == "running":  # a moment, until it waits
        run.wait(0.01)
    print(f"  {run.status}: {run.reason}")
    run.context.set("approval", answer)  # in real life a web page does this, days later
    print(f"  {run.result()}")


if __name__ == "__main__":
    order(1, "lamp", 40, "yes")
    order(2, "chair", 90, "no")
    print(f"charged {len(charged)} times")
