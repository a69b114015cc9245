function [down, seconds, code] = KbCheck()
% Stand-in: space is always down; b at the time BREAK_AT, escape from the time STOP_AT on.
code = false(1, 256);
code(KbName('space')) = true;
down = true;
seconds = GetSecs();
code(KbName('b')) = abs(seconds - str2double(getenv('BREAK_AT'))) < 0.005;
code(KbName('ESCAPE')) = seconds > str2double(getenv('STOP_AT'));
end
