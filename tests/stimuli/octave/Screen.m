function out = Screen(what, varargin)
% Stand-in for Psychtoolbox: a screen of 60 Hz that prints what it is asked to show.
out = [];
switch what
    case 'Screens'
        out = [0 1];
    case 'OpenWindow'
        printf('OPEN %d\n', varargin{2});
        out = 10;
    case 'GetFlipInterval'
        out = 1 / 60;
    case 'Rect'
        out = [0 0 1920 1080];
    case 'MakeTexture'
        assert(isa(varargin{2}, 'uint8'));
        out = sum(double(varargin{2}(:)));
    case 'Flip'
        t = GetSecs();
        if numel(varargin) > 1, t = max(t, varargin{2}); end
        out = ceil(t * 60 - 1e-6) / 60 + 0.0002;  % time stamps come a little late
        clock_set(out);
    case 'DrawTexture'
        printf('TEX %d %s %d\n', varargin{2}, mat2str(varargin{4}), varargin{6});
    case 'CloseAll'
        printf('CLOSED\n');
    case {'FillOval', 'FillRect', 'Close'}
    otherwise
        error('Screen has no %s', what);
end
end
