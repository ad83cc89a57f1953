"use strict";
// The same sum as in calculator.py, for the reader's own prices.
for (const box of document.querySelectorAll(".calculator")) {
  const fields = Object.fromEntries(
    [...box.querySelectorAll("input")].map((input) => [input.name, input]));
  const output = box.querySelector("output");
  const figure = (name) => Number(box.dataset[name]);
  const tell = (value, digits) => value.toLocaleString("en-US", {
    minimumFractionDigits: digits, maximumFractionDigits: digits });
  const moreOrLess = (value) => value < 0 ? "more" : "less";
  const saving = (value) => `${tell(Math.abs(value), 2)} USD ${moreOrLess(value)}`;

  const compute = () => {
    let whole = true;
    for (const input of Object.values(fields)) {
      const good = input.value.trim() !== "" && input.validity.valid;
      input.setAttribute("aria-invalid", String(!good));
      whole = whole && good;
    }
    if (!whole) {
      output.textContent = "Give a number of 0 or more in every field.";
      return;
    }
    const [gigabyte, call, images] = ["gigabyte", "call", "images"].map(
      (name) => Number(fields[name].value));
    const net = (bytes, calls) => images * (bytes / 1e9 * gigabyte - calls * call);
    const saved = net(figure("saved"), figure("calls"));
    const bill = net(figure("reference"), -1);
    const wire = images * figure("saved") / 1e9;
    const [low, high] = [net(figure("savedLo"), figure("callsHi")),
      net(figure("savedHi"), figure("callsLo"))];
    output.textContent =
      `${tell(images, 0)} images a day cost ${tell(bill - saved, 2)} USD a day with the agent ` +
      `and ${tell(bill, 2)} USD as references: ${saving(saved)} a day, ${saving(365 * saved)} a ` +
      `year (from ${saving(365 * low)} to ${saving(365 * high)}). On the wire that is ` +
      `${tell(Math.abs(wire), 2)} GB ${moreOrLess(wire)} a day; the monitor makes ` +
      `${tell(images * figure("calls"), 0)} calls more.`;
  };

  box.querySelector("fieldset").hidden = false;
  box.addEventListener("input", compute);
  compute();
}
